"""How sure a number is: intervals over seeds, paired tests between strategies, fits of retention. Uses scipy."""
