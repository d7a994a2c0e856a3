"""`hyperzero transfer`: what other domains tell, packages for them, and decisions on them."""
