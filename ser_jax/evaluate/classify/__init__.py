"""How well do its features classify?"""
