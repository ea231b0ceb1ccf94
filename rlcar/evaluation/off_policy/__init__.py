"""Estimates from recorded episodes how good policies are that did not drive them.

`logged` reads the episodes, `policy_actions` lets a policy answer to them. `fitted_q`, `importance`
and `support` are the estimators and checks, on plain arrays. `report` combines them into verdicts.
"""
