"""What a device was doing: power, energy, clocks, heat and throttling."""
