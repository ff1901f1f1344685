"""Runs: their folders, records and leases, what they start from, their state, and which of them retention removes.

May import `registry` and what is below it. What enters is a configuration and a storage; what leaves is a `Run`, whose
finished stages have records.
"""
