"""What every operation of a network computes, and the structures that are found in it."""
