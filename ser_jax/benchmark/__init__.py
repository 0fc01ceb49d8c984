"""What does a step cost, here and on hardware that is not here?"""
