"""How do weights come in from other packages, and go out to them?"""
