"""What do several settings and seeds give?"""
