"""What does a file of weights hold, read without running anything of it?"""
