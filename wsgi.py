"""What gunicorn and the flask command load."""

from pathlib import Path

from dotenv import load_dotenv

from taskapi import create_app

load_dotenv(Path(__file__).with_name(".env"))

app = create_app()
