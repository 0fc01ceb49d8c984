"""What does the step see: crops, colours, group elements?"""
