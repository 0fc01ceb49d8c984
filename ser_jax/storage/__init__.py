"""What lies on disk, and is it still what was written?"""
