"""Vendors' APIs as their documentation describes them: small servers on local ports, and destinations run against them.

A server knows nothing of the adapter that talks to it: every number and shape in it is the vendor's, with the page it
was read on. What the vendor would refuse it refuses, in the vendor's words; what the vendor would keep it keeps, and
tests look there.
"""
