"""Networks for chunks of actions, the data of a robot policy."""
