"""Telling the merchant: which targets may be told (target.py), signing and sending.

Signatures and headers follow Standard Webhooks (standardwebhooks.com, specification 1.0).
"""
