"""The measurements of ``make bench`` on S²-MLP-wide and -deep, and the page that it writes."""
