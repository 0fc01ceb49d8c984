"""How do gradients move weights?"""
