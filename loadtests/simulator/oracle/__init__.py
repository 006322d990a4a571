"""The oracle: an upper bound on utility with the future known; least costs (menu), prices, a schedule, the bound."""
