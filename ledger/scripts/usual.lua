-- As settle, of mails that go well: mark, sent, keep, and free with a verdict that is not bad.
return settle_all()
