"""The oracle: what a clairvoyant could earn. Its least costs (menu), prices of time, a schedule, and the bound."""
