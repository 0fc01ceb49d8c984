"""How does a group element move a picture and a token grid?"""
