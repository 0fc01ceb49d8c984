"""What does the host read, decode and crop?"""
