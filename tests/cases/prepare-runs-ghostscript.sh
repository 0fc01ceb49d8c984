# A folder of pictures from the web holds a PostScript file named picture.jpg.
# Right: it is listed as unreadable: no JPEG, PNG or WebP. No other program is started.
# Why: Pillow hands PostScript, which is a program, to Ghostscript. Preparing pictures
# must not run code that came with them.
. "$(dirname "$0")/common.sh"

pictures "$T/pictures/cat" 10
printf '%%!PS-Adobe-3.0 EPSF-3.0\n%%%%BoundingBox: 0 0 10 10\n%%%%EndComments\n0 0 10 10 rectfill showpage\n%%%%EOF\n' >"$T/pictures/cat/picture.jpg"
mkdir "$T/bin"
printf '#!/bin/sh\necho "$@" >>"%s/started"\nexit 1\n' "$T" >"$T/bin/gs"
chmod +x "$T/bin/gs"
PATH="$T/bin:$PATH" prepare --max_bad_frac=0.2 >"$T/prepare.log" 2>&1
code=$?
[ -e "$T/started" ] && wrong "Ghostscript was started: gs $(head -c 150 "$T/started")"
[ $code = 0 ] || wrong "exit status $code"
grep -q 'picture.jpg' "$T/prepare.log" || wrong "no word of picture.jpg"
right "listed as unreadable"
