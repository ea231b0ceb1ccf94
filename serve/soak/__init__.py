"""A long test of training, server and live page together: what grows, and what slows down?"""
