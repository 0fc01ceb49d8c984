"""What does a step cost, part by part?"""
