"""Plan -> Plan: how each nest runs: vectors, register tiles, rounds, the order of loops."""
