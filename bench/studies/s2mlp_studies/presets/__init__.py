"""What ``make bench`` measures on S²-MLP-wide and -deep, and the page that it writes."""
