"""What is left of accuracy on other images?"""
