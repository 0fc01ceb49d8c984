"""What do attention and tokens look like?"""
