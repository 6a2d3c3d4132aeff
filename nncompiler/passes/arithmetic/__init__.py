"""Plan -> Plan: what is computed, and when: by transforms, left out, a step ahead, in cache."""
