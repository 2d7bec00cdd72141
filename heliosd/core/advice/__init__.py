"""What an operator could do better, with the figures that say so. One rule a file: facts in, recommendations out."""
