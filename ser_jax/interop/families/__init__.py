"""What do an architecture's keys and shapes say, and what are its arrays here?"""
