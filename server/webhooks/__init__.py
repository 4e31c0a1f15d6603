"""Telling the merchant: signing and sending webhooks (Standard Webhooks)."""
