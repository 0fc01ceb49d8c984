"""How does every layer answer to moved images?"""
