"""What `/answer` by embedders is worth, and the temperature and sigmoid that make scores of their cosines."""
