"""From files to CTs and label maps; nothing that makes a result silently wrong comes past here."""
