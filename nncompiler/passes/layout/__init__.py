"""Plan -> Plan: in which order arrays lie in memory, and what is copied."""
