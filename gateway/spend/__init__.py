"""Prices, budgets and the ledger: what every attempt costs, who pays, and what may still be spent.

Invariant: money is integer nano-dollars, and unknown is never zero.
"""
