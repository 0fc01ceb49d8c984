"""Which names, which numbers?"""
