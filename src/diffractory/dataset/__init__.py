"""Plan, partition, record, verify: the only writer of simulated data, and its reader."""
