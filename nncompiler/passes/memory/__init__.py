"""Plan -> Plan: where buffers lie in the arena."""
