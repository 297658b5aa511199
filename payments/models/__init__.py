"""The nouns of payments."""

from payments.models.books import Reconciliation, ReconciliationRow
from payments.models.delivery import WebhookDelivery
from payments.models.ledger import Fulfilment, OrderPayment, Transaction

__all__ = [
    "Fulfilment",
    "OrderPayment",
    "Reconciliation",
    "ReconciliationRow",
    "Transaction",
    "WebhookDelivery",
]
