"""What every operation of a network computes, and what is found in it."""
