"""What turns an image into tokens?"""
