"""How do files become a data set that training reads?"""
