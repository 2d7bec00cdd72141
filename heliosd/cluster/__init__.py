"""Who the other nodes are, what they hold, and how a request is passed to one of them."""
