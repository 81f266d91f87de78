"""What stands around the maths: figures, interactives, target densities and training."""
