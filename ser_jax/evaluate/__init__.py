"""What is the encoder worth?"""
