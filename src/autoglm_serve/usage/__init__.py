"""What keys have used: written by workers as it happens, booked by the control plane behind them."""
