"""Graph -> Plan: each group as a loop nest, in order."""
