"""What is read off the encoder, and kept?"""
