"""What a run would do and what it would cost. Nothing is trained or encoded here."""
